// Dns answers the names of a cluster's services from a pod in it, and knows no others.
package main

import (
	"context"
	"log"
	"net"
	"os/signal"
	"strings"
	"syscall"

	"golang.org/x/net/dns/dnsmessage"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	lister "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/rest"
)

const zone = ".svc.cluster.local."

func main() {
	stopped, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	access, err := rest.InClusterConfig()
	if err != nil {
		log.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(access)
	if err != nil {
		log.Fatal(err)
	}
	known := informers.NewSharedInformerFactory(client, 0)
	services := known.Core().V1().Services()
	services.Informer()
	known.Start(stopped.Done())
	known.WaitForCacheSync(stopped.Done())
	listening, err := net.ListenPacket("udp", ":53")
	if err != nil {
		log.Fatal(err)
	}
	go func() {
		<-stopped.Done()
		listening.Close()
	}()
	packet := make([]byte, 512)
	for {
		size, from, err := listening.ReadFrom(packet)
		if err != nil {
			return
		}
		if reply := answer(packet[:size], services.Lister()); reply != nil {
			if _, err := listening.WriteTo(reply, from); err != nil {
				log.Print(err)
			}
		}
	}
}

// answer returns the reply to a question, or nothing to what is none.
func answer(packet []byte, services lister.ServiceLister) []byte {
	var asked dnsmessage.Message
	if err := asked.Unpack(packet); err != nil || len(asked.Questions) != 1 || asked.Response {
		return nil
	}
	question := asked.Questions[0]
	reply := dnsmessage.Message{
		Header: dnsmessage.Header{
			ID: asked.ID, Response: true, Authoritative: true, RecursionDesired: asked.RecursionDesired,
		},
		Questions: asked.Questions,
	}
	address, known := find(strings.ToLower(question.Name.String()), services)
	switch {
	case !known:
		reply.RCode = dnsmessage.RCodeNameError
	case address != nil && question.Type == dnsmessage.TypeA:
		reply.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: question.Name, Class: dnsmessage.ClassINET, TTL: 5},
			Body:   &dnsmessage.AResource{A: [4]byte(address)},
		}}
	}
	packed, err := reply.Pack()
	if err != nil {
		return nil
	}
	return packed
}

// find returns the address of a service, if it has one, and whether there is a service of that name.
func find(name string, services lister.ServiceLister) (net.IP, bool) {
	labels := strings.Split(strings.TrimSuffix(name, zone), ".")
	if !strings.HasSuffix(name, zone) || len(labels) != 2 {
		return nil, false
	}
	service, err := services.Services(labels[1]).Get(labels[0])
	if err != nil {
		return nil, false
	}
	return net.ParseIP(service.Spec.ClusterIP).To4(), true
}
